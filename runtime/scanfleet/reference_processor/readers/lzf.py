"""LZF, the compression of binary_compressed PCD files.

Format, from liblzf's description: a control byte below 32 is followed by that many + 1 literal bytes; any
other
holds a length (upper 3 bits; 7 means that a further byte adds to it) and the upper 5 bits of a distance,
whose lower 8 bits follow; length + 2 bytes are copied from distance + 1 bytes back.
"""

MAX_EXPANSION = 90
"""Three bytes give at most 264: a header that claims more than this ratio lies."""


def decompress(data: bytes, *, size: int) -> bytes:
    """Return the `size` bytes that `data` holds.

    Raises ValueError saying at which byte of `data` it is damaged, or that it holds another number of bytes.
    """
    if size > MAX_EXPANSION * len(data) + 64:
        raise ValueError(f"{len(data)} compressed bytes cannot hold {size} bytes")
    out = bytearray()
    position, end = 0, len(data)
    try:
        while position < end:
            control = data[position]
            position += 1
            if control < 32:
                out += data[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[position]
                position += 1
            length += 2
            start = len(out) - ((control & 31) << 8) - data[position] - 1
            position += 1
            if start < 0:
                raise ValueError(f"a reference before the start at compressed byte {position}")
            piece = out[start : start + length]
            if len(piece) < length:  # the copy overlaps itself: its period repeats
                piece = (piece * (length // len(piece) + 1))[:length]
            out += piece
            if len(out) > size:
                break
    except IndexError:
        raise ValueError(f"the compressed data ends in the middle, at byte {end}") from None
    if len(out) != size or position > end:
        raise ValueError(f"the compressed data holds {len(out)} bytes instead of {size}")
    return bytes(out)
