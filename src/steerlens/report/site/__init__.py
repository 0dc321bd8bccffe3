"""Published sites: one or many runs as static pages, to be put on any web server."""

from steerlens.report.site.writer import Site, publish_site

__all__ = ["Site", "publish_site"]
