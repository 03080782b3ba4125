"""boto3's own way to upload a file, with all its defaults: a client that is measured.

python upload_file.py FILE ENDPOINT_URL BUCKET KEY
"""

import sys

import boto3

path, endpoint_url, bucket, key = sys.argv[1:]
boto3.client("s3", endpoint_url=endpoint_url).upload_file(path, bucket, key)
