"""The order of the modules and the map of the tree in ARCHITECTURE.md, drawn from the files."""
