"""A job beside the bucket: analyzes, one after the other, the stored dumps that have no exact report yet."""
