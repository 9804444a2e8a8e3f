"""What a processor does to photos of bytes, in one pass over each; compiled by Numba when first called, then cached.

`development` says when this is used, and does the same with PyTorch elsewhere.
"""

import numba
import numpy as np

CHANNELS = 4  # that a pixel has room for
numba.config.SLP_VECTORIZE = 1  # makes vectors of what is not a loop: `warped` takes half the time


def compiled(function):
    """The function compiled, without the interpreter's lock; cached if there is a folder that may be written to."""
    # As on any device, a division by 0 is no error.
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@compiled
def developed(photos, tables, to_input, resampled, out, rows):
    """Write the photos `rows` of (B, C, H, W) uint8 to `out`, (B, C, H, W) float32; C at most 4, H and W at least 2.

    tables: (B, C, 256) float32, what becomes of each level. to_input: (B, 2, 3) float32, from the output's pixels to
    the input's; where not `resampled`, (B,) bool, they do nothing but shift by whole ones, less than a side.
    """
    pixels = np.zeros((*out.shape[2:], CHANNELS), np.float32)
    for row in rows:
        if resampled[row]:
            looked_up(photos[row], tables[row], 0, 0, pixels.transpose(2, 0, 1))
            warped(pixels, to_input[row], out[row])
        else:
            down, right = -int(to_input[row, 1, 2]), -int(to_input[row, 0, 2])
            looked_up(photos[row], tables[row], down, right, out[row])


@compiled
def looked_up(photo, table, down, right, out):
    """(C, H, W) uint8 by a (C, 256) table, shifted by whole pixels, in which the edge is mirrored."""
    channels, height, width = photo.shape
    first, last = max(right, 0), width + min(right, 0)
    for channel in range(channels):
        levels = table[channel]
        for row in range(height):
            source, target = photo[channel, mirrored(row - down, height)], out[channel, row]
            stays, place = source[first - right : last - right], target[first:last]
            for column in range(place.size):
                place[column] = levels[stays[column]]
            for column in beyond(right, width):
                target[column] = levels[source[mirrored(column - right, width)]]


@compiled
def beyond(by, side):
    """The places of a side shifted by less than its length to which nothing comes but its mirror image."""
    return range(by) if by > 0 else range(side + by, side)


@compiled
def mirrored(place, side):
    """A place less than a side's length beyond it, in the mirror of the edge."""
    return -1 - place if place < 0 else 2 * side - 1 - place if place >= side else place


@compiled
def warped(pixels, to_input, out):
    """(H, W, 4) float32 read bilinearly where a (2, 3) matrix says, in pixels, to (C, H, W); the edge is mirrored."""
    channels, height, width = out.shape
    numbers = pixels.reshape(height * width * CHANNELS)
    one, half, two = np.float32(1), np.float32(0.5), np.float32(2)
    wide, tall = np.float32(width), np.float32(height)
    corner = np.empty(width, np.int32)  # upper left of the four pixels that each one is made of
    shares = np.empty((width, 4), np.float32)  # of each of them
    line = np.empty((width, CHANNELS), np.float32)
    below = np.uint64(width * CHANNELS)
    for row in range(height):
        from_x = to_input[0, 1] * np.float32(row) + to_input[0, 2]
        from_y = to_input[1, 1] * np.float32(row) + to_input[1, 2]
        for column in range(width):
            x = abs(to_input[0, 0] * np.float32(column) + from_x + half)
            y = abs(to_input[1, 0] * np.float32(column) + from_y + half)
            x -= np.floor(x * (half / wide)) * (two * wide)
            y -= np.floor(y * (half / tall)) * (two * tall)
            x = min(max(min(x, two * wide - x) - half, np.float32(0)), wide - one)
            y = min(max(min(y, two * tall - y) - half, np.float32(0)), tall - one)
            left, top = min(np.floor(x), wide - two), min(np.floor(y), tall - two)
            x, y = x - left, y - top
            corner[column] = np.int32(top) * np.int32(width) + np.int32(left)
            shares[column, 0] = one - x - y + x * y
            shares[column, 1] = x - x * y
            shares[column, 2] = y - x * y
            shares[column, 3] = x * y
        for column in range(width):
            at, part = np.uint64(corner[column]) * np.uint64(CHANNELS), shares[column]
            # All four before any is written: so they become one vector.
            red, green = blended(numbers, at, below, part), blended(numbers, at + np.uint64(1), below, part)
            blue, other = (
                blended(numbers, at + np.uint64(2), below, part),
                blended(numbers, at + np.uint64(3), below, part),
            )
            line[column, 0], line[column, 1], line[column, 2], line[column, 3] = red, green, blue, other
        for channel in range(channels):
            for column in range(width):
                out[channel, row, column] = line[column, channel]


@compiled
def blended(numbers, at, below, shares):
    """One channel of a pixel: shares of the number `at`, of the next pixel's, and of those below the two."""
    right = np.uint64(CHANNELS)
    upper = shares[0] * numbers[at] + shares[1] * numbers[at + right]
    return upper + shares[2] * numbers[at + below] + shares[3] * numbers[at + below + right]


@compiled
def counted(photos, counts, rows):
    """Write to (B, C, 256) int64 how often each level occurs in the channels of the photos `rows`."""
    channels, height, width = photos.shape[1:]
    for row in rows:
        for channel in range(channels):
            found = counts[row, channel]
            found[:] = 0
            for line in range(height):
                for column in range(width):
                    found[photos[row, channel, line, column]] += 1


@compiled
def saturated(photos, values, rows):
    """Move the photos `rows` of (B, 3, H, W) float32 away from or towards grey by 1 + values, (B,), as `retouching`."""
    for row in rows:
        factor = np.float32(1) + values[row]
        for line in range(photos.shape[2]):
            red, green, blue = photos[row, 0, line], photos[row, 1, line], photos[row, 2, line]
            for column in range(red.size):
                # The cache would not notice a change to retouching.GREY_WEIGHTS, if these were imported.
                grey = np.float32(0.2989) * red[column] + np.float32(0.587) * green[column]
                grey += np.float32(0.114) * blue[column]
                grey *= np.float32(1) - factor
                red[column] = within(grey + factor * red[column])
                green[column] = within(grey + factor * green[column])
                blue[column] = within(grey + factor * blue[column])


@compiled
def sharpened(photos, values, rows):
    """Move the photos `rows` of (B, C, H, W) float32 away from or towards a smooth copy, as `color.sharpness`."""
    channels, height, width = photos.shape[1:]
    above, here, three = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for row in rows:
        factor = np.float32(1) + values[row]
        rest = (np.float32(1) - factor) / np.float32(13)
        for channel in range(channels):
            photo = photos[row, channel]
            above[:] = photo[0]
            for line in range(1, height - 1):
                target, below = photo[line], photo[line + 1]
                for column in range(width):
                    here[column] = target[column]
                    three[column] = above[column] + here[column] + below[column]
                for column in range(width - 2):
                    middle = here[column + 1]
                    smooth = three[column] + three[column + 1] + three[column + 2] + np.float32(4) * middle
                    target[column + 1] = within(factor * middle + rest * smooth)
                above[:] = here


@compiled
def within(number):
    """A float32 no less than 0 and no more than 1."""
    return min(max(number, np.float32(0)), np.float32(1))
