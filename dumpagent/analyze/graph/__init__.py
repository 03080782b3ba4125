"""Works on the object graph as numbers alone: which object dominates which, how much each retains."""
