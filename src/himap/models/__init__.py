"""Model adapters, one file each, behind one loader."""
