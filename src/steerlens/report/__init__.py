"""Reports: figures and pages drawn from finished results; nothing is computed here."""
