"""Tables, pictures and summaries of what lies in outputs/. Reads files only and never imports torch."""
