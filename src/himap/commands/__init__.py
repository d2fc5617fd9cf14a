"""The verbs, one file each; a module has `main(arguments)` and imports nothing heavy before it must."""
