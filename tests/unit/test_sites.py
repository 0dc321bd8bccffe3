"""Sites: text forms, patterns, and what is refused with which words."""

import pytest

from steerlens.errors import UsageError
from steerlens.sites import Site, all_heads, layer_sites, parse_sites

L, H = 12, 6


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("embed", Site("embed")),
        ("resid_pre.0", Site("resid_pre", 0)),
        ("resid_mid.3", Site("resid_mid", 3)),
        ("resid_post.12", Site("resid_post", 12)),
        ("attn_out.7", Site("attn_out", 7)),
        ("mlp_out.7", Site("mlp_out", 7)),
        ("head.36.4", Site("head", 36, 4)),
        ("L36H4", Site("head", 36, 4)),
        ("l36h4", Site("head", 36, 4)),
        ("  head.1.2 ", Site("head", 1, 2)),
        ("vector.red.warm", Site("vector", name="red.warm")),
        ("neuron.3.4095", Site("neuron", 3, index=4095)),
        ("feature.clip.7", Site("feature", name="clip", index=7)),
        ("feature.clip.3.7", Site("feature", name="clip.3", index=7)),
    ],
)
def test_a_text_form_names_its_site(text: str, site: Site) -> None:
    assert Site.parse(text) == site


@pytest.mark.parametrize(
    "text",
    (
        *("", "head", "head.1", "head.1.2.3", "head.-1.0", "head.a.b", "resid_post", "resid_post.", "resid_post.1.2"),
        *("resid_post.1.5.", "mlp.3", "L3", "H4", "LH", "L3H4x", "vector", "vector.", "attn_out.x", "resid_post.1e3"),
        *("neuron", "neuron.1", "neuron.1.-2", "neuron.1.2.3", "feature", "feature.x", "feature.3", "feature.x.y"),
        *("blocks.8.norm1", "blocks.8.hook_mlp_post", "layers", "blocks.x", "blocks.8.attn.qkv"),
    ),
)
def test_a_text_that_names_no_site_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a site\. Write resid_pre\.N.*LNHM for a head"):
        Site.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense", 1), "unknown kind of site 'nonsense'"),
        (("resid_post",), "takes a layer, counted from 0; got layer -1"),
        (("embed", 0), "takes no layer"),
        (("head", 3), "takes a layer and a head"),
        (("mlp_out", 3, 1), "a mlp_out site takes a layer, counted from 0; got layer 3, head 1"),
        (("vector",), "carries a name"),
        (("mlp_out", 1, -1, "x"), "carries a name"),
        (("feature", -1, -1, "", 3), "carries a name"),
        (("feature", -1, -1, "x"), "carries an index"),
        (("neuron", 1), "carries an index"),
        (("neuron", -1, -1, "", 1), "takes a layer, counted from 0"),
        (("mlp_out", 1, -1, "", 0), "carries an index"),
        (("feature", -1, -1, "a b", 0), "cannot name a sparse autoencoder"),
    ],
)
def test_a_site_that_cannot_be_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Site(*arguments)  # type: ignore[arg-type]


def test_the_label_of_a_head_is_the_papers_and_of_others_the_text_form() -> None:
    assert Site("head", 36, 4).label == "L36H4"
    assert Site("mlp_out", 3).label == "mlp_out.3"
    assert Site("neuron", 3, index=9).label == "L3N9"
    assert Site("feature", name="clip", index=9).label == "clip 9"


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("blocks.8.hook_resid_post", "resid_post.8"),
        ("blocks.8.hook_resid_mid", "resid_mid.8"),
        ("blocks.0.hook_resid_pre", "resid_pre.0"),
        ("blocks.8.hook_mlp_out", "mlp_out.8"),
        ("blocks.8.attn.hook_z", "attn_out.8"),
        ("vision_model.encoder.layers.8", "resid_post.8"),
        ("vision_model.encoder.layers.8.self_attn", "attn_out.8"),
        ("vision_model.encoder.layers.8.mlp", "mlp_out.8"),
        ("encoder.layer.11", "resid_post.11"),
        ("blocks.8", "resid_post.8"),
        ("blocks.8.attn", "attn_out.8"),
        ("visual.transformer.resblocks.23", "resid_post.23"),
    ],
)
def test_names_of_other_libraries_name_the_same_places(text: str, site: str) -> None:
    assert Site.parse(text) == Site.parse(site)
    assert parse_sites(f"{text}, head.0.1", 24, H)[0] == Site.parse(site)


@pytest.mark.parametrize("text", ["neuron.3.4095", "feature.clip.3.7", "head.1.2", "vector.x"])
def test_the_text_form_reads_back(text: str) -> None:
    assert str(Site.parse(text)) == text


def test_sites_sort_by_kind_layer_and_number() -> None:
    texts = ["feature.a.2", "feature.a.10", "feature.b.1", "head.1.0", "neuron.1.9", "neuron.2.1"]
    assert sorted(map(Site.parse, reversed(texts))) == [Site.parse(text) for text in texts]


def test_writes_are_what_can_be_steered() -> None:
    kinds = {kind: Site.parse(text).is_write for kind, text in [(t.split(".")[0], t) for t in TEXTS]}
    assert {kind for kind, is_write in kinds.items() if is_write} == {
        *("attn_out", "mlp_out", "head", "vector", "group", "region", "neuron", "feature")
    }


TEXTS = (
    *("embed", "resid_pre.1", "resid_mid.1", "resid_post.1", "attn_out.1", "mlp_out.1", "head.1.1"),
    *("vector.x", "group.x", "region.x", "neuron.1.1", "feature.x.1"),
)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("resid_post", 12), r"resid_post\.12: the model has 12 layers, 0 to 11"),
        (Site("head", 12, 0), r"head\.12\.0: the model has 12 layers"),
        (Site("head", 0, 6), r"head\.0\.6: the model has heads 0 to 5 in each layer"),
    ],
)
def test_a_site_outside_the_model_is_refused_with_the_models_size(site: Site, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        site.check(L, H)


@pytest.mark.parametrize("text", ["embed", "vector.x", "resid_post.11", "head.11.5"])
def test_check_gives_back_a_site_that_the_model_has(text: str) -> None:
    assert Site.parse(text).check(L, H) == Site.parse(text)


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("L3H4", ["head.3.4"]),
        ("heads", [str(site) for site in all_heads(L, H)]),
        ("resid_post", [f"resid_post.{layer}" for layer in range(L)]),
        ("resid_post.*", [f"resid_post.{layer}" for layer in range(L)]),
        ("mlp_out.3-5", ["mlp_out.3", "mlp_out.4", "mlp_out.5"]),
        ("head.2", [f"head.2.{head}" for head in range(H)]),
        ("head.10-11.*", [f"head.{layer}.{head}" for layer in (10, 11) for head in range(H)]),
        ("head.*.0", [f"head.{layer}.0" for layer in range(L)]),
        ("embed, vector.probe", ["embed", "vector.probe"]),
        ("neuron.3.7-9", ["neuron.3.7", "neuron.3.8", "neuron.3.9"]),
        ("feature.x.2.0-1,feature.x.5", ["feature.x.2.0", "feature.x.2.1", "feature.x.5"]),
        ("mlp_out.4,L1H1,mlp_out.4,,head.1.1", ["mlp_out.4", "head.1.1"]),
    ],
)
def test_a_list_of_patterns_names_its_sites_in_order_and_once(text: str, sites: list[str]) -> None:
    assert [str(site) for site in parse_sites(text, L, H)] == sites


def test_all_is_every_residual_attention_mlp_and_head() -> None:
    assert len(parse_sites("all", L, H)) == 3 * L + L * H


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no site was named"),
        (" , ", "no site was named"),
        ("L12H0", "the model has 12 layers"),
        ("head.8-12.*", "the model has 12 layers"),
        ("mlp_out.5-3", "'5-3' is neither a number, a range like 8-11, nor"),
        ("mlp_out.x", "'x' is neither"),
        ("mlp_out.1.2", "is not a site"),
        ("everything", "is not a site"),
        ("neuron.12.0", "the model has 12 layers"),
        ("neuron.3.*", "is not a site"),
        ("neuron.3.9-7", "'9-7' is neither a number"),
        ("feature.x.0-100000000", "100,000,001 neurons or features, more than the 100,000"),
        ("head.0.0,L0H6", "the model has heads 0 to 5"),
    ],
)
def test_a_list_that_names_what_is_not_there_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_sites(text, L, H)


def test_layer_sites_are_one_a_layer() -> None:
    assert layer_sites("mlp_out", 3) == (Site("mlp_out", 0), Site("mlp_out", 1), Site("mlp_out", 2))
