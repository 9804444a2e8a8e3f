"""Photos in, photos out, whatever they show: policy, geometric, color, apply, search."""
