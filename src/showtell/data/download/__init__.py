"""Downloads of well-known data sets: resumable, checked, unpacked safely."""
