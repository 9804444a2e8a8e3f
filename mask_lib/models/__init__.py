"""Networks, and what they say of photos.

Read networks, build, weights, checkpoint, devices, distributed, predict, features, looks, grad_cam, pillow_resize.
"""
