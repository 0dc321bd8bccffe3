"""Sites for any numbers and any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlens.errors import UsageError
from steerlens.sites import Site, all_heads, parse_sites

numbers = st.integers(0, 10**6)
names = st.from_regex(r"[\w.-]+", fullmatch=True)
sites = st.one_of(
    st.just(Site("embed")),
    st.builds(Site, st.sampled_from(["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]), numbers),
    st.builds(Site, st.just("head"), numbers, numbers),
    st.builds(lambda name: Site("vector", name=name), names),
)
sizes = st.tuples(st.integers(1, 48), st.integers(1, 16))


@given(sites)
def test_a_sites_text_form_names_it_again(site: Site) -> None:
    assert Site.parse(str(site)) == site


@given(numbers, numbers)
def test_a_heads_label_names_it_again(layer: int, head: int) -> None:
    assert Site.parse(Site("head", layer, head).label) == Site("head", layer, head)


@given(sites, sites)
def test_sites_are_equal_exactly_when_their_text_forms_are(one: Site, other: Site) -> None:
    assert (one == other) == (str(one) == str(other))


@given(st.one_of(st.text(), st.from_regex(r"(resid_post|head|L|mlp_out|vector)[.0-9H*-]{0,8}", fullmatch=True)))
def test_any_text_is_a_site_or_a_usage_error(text: str) -> None:
    try:
        site = Site.parse(text)
    except UsageError as error:
        assert str(error).endswith(".")
    else:
        assert Site.parse(str(site)) == site


@given(
    st.one_of(
        st.text(), st.from_regex(r"((heads|all|resid_post|head|L|mlp_out)[.0-9H*-]{0,6},?){1,3}", fullmatch=True)
    ),
    sizes,
)
def test_any_list_names_sites_of_the_model_or_is_a_usage_error(text: str, size: tuple[int, int]) -> None:
    try:
        found = parse_sites(text, *size)
    except UsageError:
        return
    assert found
    assert len(set(found)) == len(found)
    assert all(site.check(*size) == site for site in found)


@given(sizes, st.data())
def test_a_list_of_text_forms_is_read_in_order_and_without_repeats(size: tuple[int, int], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(all_heads(*size)), min_size=1, max_size=8))
    text = ", ".join(site.label if index % 2 else str(site) for index, site in enumerate(chosen))
    assert parse_sites(text, *size) == tuple(dict.fromkeys(chosen))


@given(sizes, st.data())
def test_a_range_of_layers_is_its_layers_one_by_one(size: tuple[int, int], data: st.DataObject) -> None:
    low = data.draw(st.integers(0, size[0] - 1))
    high = data.draw(st.integers(low, size[0] - 1))
    one_by_one = ",".join(f"head.{layer}.{head}" for layer in range(low, high + 1) for head in range(size[1]))
    assert parse_sites(f"head.{low}-{high}.*", *size) == parse_sites(one_by_one, *size)


@given(sizes)
def test_one_layer_or_head_too_many_is_refused(size: tuple[int, int]) -> None:
    for text in (f"head.{size[0]}.0", f"head.0.{size[1]}", f"resid_post.0-{size[0]}", f"L{size[0]}H{size[1]}"):
        with pytest.raises(UsageError, match="the model has"):
            parse_sites(text, *size)


def test_a_number_too_long_to_read_is_refused_like_any_other() -> None:
    for text in ("resid_post." + "9" * 5000, "L" + "9" * 5000 + "H1"):
        with pytest.raises(UsageError):
            parse_sites(text, 3, 2)
