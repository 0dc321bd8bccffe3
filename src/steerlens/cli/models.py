"""The command `steerlens models`: lists models with domain, size and licence, and whether they are on this machine."""

from dataclasses import dataclass
from typing import Any

from steerlens.cli.console import emit_json, print_table, say
from steerlens.zoo import Card, cards, recommendations, unbuildable

_HERE = {"bundled": "bundled", "downloaded": "yes", "partly": "in part", "no": "no"}


@dataclass(frozen=True)
class Command:
    """List the models that can be given by name, without using the network.

    Attributes:
        json: print JSON instead of a table.
    """

    json: bool = False

    def run(self) -> int:
        """Prints the list."""
        rows = [describe(card) for card in cards().values()]
        if self.json:
            emit_json(rows)
            return 0
        print_table(
            ("NAME", "HERE", "SIZE", "ENCODER", "CONDITIONS ON", "LICENCE", "TITLE", "DOMAIN: TRAINED ON"),
            [
                (
                    row["name"],
                    "unusable" if row["unusable"] else _HERE[row["here"]],
                    f"{row['gigabytes']:g} GB",
                    f"{row['layers']} x {row['heads']}" if row["layers"] else "any",
                    f"{row['consumes']} ({row['embedding_size'] or 'any size'})",
                    row["licence"],
                    row["title"],
                    row["domain"],
                )
                for row in rows
            ],
        )
        for row in rows:
            if row["unusable"]:
                say(f"\n{row['name']} cannot be used here: {row['unusable']}")
        say("\nWhich one?")
        for advice in recommendations():
            say(f"  {advice.need}: {advice.name} ({advice.reason})")
        say("\nThe folder of a pair is a model too: steerlens lens PICTURE --model FOLDER")
        return 0


def describe(card: Card) -> dict[str, Any]:
    """Card as a row of the list."""
    return {
        "name": card.name,
        "title": card.title,
        "domain": card.domain,
        "here": on_this_machine(card),
        "unusable": unbuildable(card.family),
        "gigabytes": card.gigabytes,
        "licence": card.licence,
        "terms": card.terms,
        "family": card.family,
        "consumes": card.consumes,
        "embedding_size": card.embedding_size,
        "layers": card.layers,
        "heads": card.heads,
        "paper": None if card.paper == "none" else f"arXiv {card.paper}",
        "encoder": card.encoder,
        "decoder": card.decoder,
        "adapter": card.adapter,
    }


def on_this_machine(card: Card) -> str:
    """`bundled`, `downloaded`, `partly` or `no`, from the package and the cache of the hub; no network."""
    from steerlens.zoo import cached_snapshot, card_files

    bundled = card.bundled_folder is not None and card.bundled_folder.is_dir()
    if card.bundled is not None and (card.encoder is None or not bundled):
        return "bundled" if bundled else "no"
    if card.encoder is None or card.pickled:  # pickled weights are of no use from the cache
        return "no"
    cached = [cached_snapshot(source.repository, source.at, names) for source, names in card_files(card)]
    cached += [card.bundled_folder] * bundled  # the decoder is in the package, its encoder on the hub
    return "downloaded" if all(cached) else "partly" if any(cached) else "no"
