"""Networks, and what they say of photos: networks, build, weights, checkpoint, devices, predict, features."""
