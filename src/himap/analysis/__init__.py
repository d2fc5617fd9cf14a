"""Where visual information flows: saliency, disruption, and which image tokens a strategy keeps."""
