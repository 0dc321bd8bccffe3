"""Checks of a native model's structure: unexpected parts are refused by name, never half-supported."""

from collections.abc import Collection

from torch import nn

from steerlens.errors import ModelError


def refuse_unknown(
    library: str, name: str, module: nn.Module, known: Collection[str], optional: Collection[str] = ()
) -> None:
    """Checks that a module has the expected children and no others.

    Args:
        library: description of the expected model.
        name: the module's path in the model.
        module: the module itself.
        known: names of the children that it must have.
        optional: names of children that it may have.

    Raises:
        ModelError: if a child is missing or unexpected: it could be missing from the decomposition.
    """
    children = {child for child, _ in module.named_children()}
    surprising = sorted((set(known) - children) | (children - set(known) - set(optional)))
    if surprising:
        raise ModelError(
            f"{name} is not built like {library}: {', '.join(surprising)} "
            f"{'is' if len(surprising) == 1 else 'are'} there unexpectedly or missing."
        )


def refuse_kind(library: str, name: str, module: object, *kinds: type) -> None:
    """Checks that a module has a known class; subclasses may behave differently and are refused.

    Raises:
        ModelError: if it is not.
    """
    if type(module) not in kinds:
        raise ModelError(
            f"{name} is a {class_name(type(module))}, which is not known in {library}; "
            f"known: {', '.join(map(class_name, kinds))}."
        )


def class_name(kind: type) -> str:
    """Names a class with its module: quantised layers often have the same names as the layers they replace."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
