"""Image datasets in shards: WebDataset tars and Parquet with image bytes, read and written again in the same layout.

All functions take open binary files that can seek (a local file, or pyarrow's on an object store): reads are few
and large, writes only go forward. Errors of the file system (`OSError` with a number) pass through.
"""
