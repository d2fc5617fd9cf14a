"""A small drawn world: the data behind the embedded model and its four tasks. numpy only."""
