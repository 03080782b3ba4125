"""The developer's side: which dumps the store holds, fetching one, and proving that it is what was sent."""
