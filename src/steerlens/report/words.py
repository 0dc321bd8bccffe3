"""Words and scales of a page, for pictures that a decoder draws, and for those that are retrieved from an index."""

from steerlens.atlas import Atlas


def is_retrieved(atlas: Atlas) -> bool:
    """True if pictures are files of an index, retrieved and not drawn."""
    return atlas.decoder.family == "neighbours"


def words(atlas: Atlas) -> dict[str, str]:
    """Names of what a page shows: decoded pictures, or retrieved ones."""
    if is_retrieved(atlas):
        return {
            "picture": "retrieved picture",
            "pictures": "retrieved pictures",
            "decoded": "retrieved",
            "Clean": "Nearest picture",
            "clean": "nearest picture",
            "short": "nearest",
            "undecoded": "not decoded",
            "without": "Not decoded",
            "fidelity": "cosine with the embedding",
            "caption": "cosine",
            "fid": "cos.",
            "seed": "neighbour",
            "first": "1",
        }
    return {
        "picture": "decoded picture",
        "pictures": "decoded pictures",
        "decoded": "decoded",
        "Clean": "Clean reconstruction",
        "clean": "clean reconstruction",
        "short": "clean",
        "undecoded": "not decoded",
        "without": "Not decoded",
        "fidelity": "fidelity",
        "caption": "fidelity",
        "fid": "fid.",
        "seed": "seed",
        "first": "0",
    }
