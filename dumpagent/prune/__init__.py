"""Retention in the bucket: which stored dumps may go, and their deletion with credentials of its own."""
