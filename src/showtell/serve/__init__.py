"""`showtell serve`: an HTTP API and a page over one or more captioners (FastAPI, uvicorn).

`settings.py` says what a server allows, `schema.py` what goes in and out, `reading.py` turns a request's body into
images and options, `batching.py` captions images of different requests together, `service.py` puts these three
together, `app.py` gives them addresses, `server.py` runs them until it is told to stop. `page/` is what a browser gets.
"""
