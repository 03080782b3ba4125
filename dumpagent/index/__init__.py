"""The index of the dumps in a bucket: a small object for each dump, whose key alone holds what a listing shows."""
