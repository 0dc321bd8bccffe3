"""Policies: what visitors may ask of a server: on a laptop, a shared machine, a public Space. Imports nothing heavy."""

from dataclasses import dataclass

from steerlens.limits import limit


@dataclass(frozen=True)
class Policy:
    """Limits of a server.

    Attributes:
        upload_bytes: bytes of the largest picture that is accepted.
        upload_pixels: pixels of the largest picture that is accepted.
        inputs: pictures that the server keeps; the least recently used one makes room.
        inputs_bytes: bytes that their files may take together.
        decodes: pictures that one visitor may have decoded per minute; None for any number.
        uploads: pictures that one visitor may send per minute; None for any number.
        readings: requests without decoding that one visitor may make of the model per minute, such as scores of the map
            or lists of features; None for any number.
        tabs: requests that wait for the model at most; further ones are refused.
        seconds: seconds that one request may take of the model's time.
        writes: whether visitors may save runs, and have their pictures written beside them.
        public: whether anybody may open the page, as on a Space; else another host needs the token.
    """

    upload_bytes: int = 20_000_000
    upload_pixels: int = 40_000_000
    inputs: int = 64
    inputs_bytes: int = 256_000_000
    decodes: int | None = None
    uploads: int | None = None
    readings: int | None = None
    tabs: int = 64
    seconds: float = 600.0
    writes: bool = True
    public: bool = False

    @classmethod
    def local(cls) -> "Policy":
        """A server on this machine, for its user."""
        return cls(upload_bytes=limit("upload_bytes"), upload_pixels=limit("upload_pixels"))

    @classmethod
    def shared(cls) -> "Policy":
        """A server that others reach over the network, with the token."""
        return cls(
            upload_bytes=limit("upload_bytes"),
            upload_pixels=limit("upload_pixels"),
            decodes=1200,
            uploads=60,
            readings=2400,
            seconds=120.0,
        )

    @classmethod
    def space(cls) -> "Policy":
        """A public Space: anybody may come, and nothing is written."""
        return cls(
            upload_bytes=min(limit("upload_bytes"), 8_000_000),
            upload_pixels=min(limit("upload_pixels"), 16_000_000),
            inputs=48,
            inputs_bytes=96_000_000,
            decodes=240,
            uploads=20,
            readings=600,
            tabs=24,
            seconds=30.0,
            writes=False,
            public=True,
        )
