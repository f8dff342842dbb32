# The server: a page and an HTTP API with the model that ships, on ONNX Runtime, without PyTorch.
#
#   docker build --tag showtell .
#   docker run --rm --publish 127.0.0.1:8000:8000 showtell
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/exported:/models:ro" showtell --model /models/mine
#
# Without --token anybody who reaches the published port can use it. Behind a proxy with TLS: --env SHOWTELL_TOKEN=...
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY recipes recipes
COPY src src
RUN python -m venv /opt/showtell \
 && /opt/showtell/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]'

FROM python:3.12-slim
RUN useradd --system --create-home --shell /usr/sbin/nologin showtell
COPY --from=build /opt/showtell /opt/showtell
USER showtell
WORKDIR /home/showtell
ENV PATH=/opt/showtell/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["showtell", "serve", "--host", "0.0.0.0", "--port", "8000"]
