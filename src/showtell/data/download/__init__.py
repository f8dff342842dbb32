"""Downloads of well-known data sets: they can be resumed, are checked, and are unpacked safely."""
