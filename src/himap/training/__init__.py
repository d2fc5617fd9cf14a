"""How the embedded model was made: `himap train`."""
