"""Published sites: one or many runs as static pages, to be put on any web server."""

from steerlens.report.site.writer import Site, publish_site, site_files

__all__ = ["Site", "publish_site", "site_files"]
