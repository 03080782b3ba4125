"""The S3 store over boto3."""
