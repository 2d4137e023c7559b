"""`srq-hw build`: hashed, resumable steps from a float network to a proven integer pipeline."""
