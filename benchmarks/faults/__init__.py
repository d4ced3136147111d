"""The fault bench: small runs that are ill, well, or only look ill, and what Otoscope says of them."""
