"""Mount mode: keeps the node's dump directory bound to the volume."""
