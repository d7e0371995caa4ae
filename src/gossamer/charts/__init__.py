"""SVG charts and the page that reports and other pages stand on."""
