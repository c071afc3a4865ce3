"""Reading and writing pictures: bytes to frames and back."""
