"""The explorer as a Hugging Face Space: the server of `steerlens app`, with limits for each visitor."""

import os
import sys

from steerlens.cli.main import main

# MODEL names another pair, as in `steerlens lens --model`.
sys.exit(
    main(["app", "--space", "--model", os.environ.get("MODEL", "emoji"), "--port", os.environ.get("PORT", "7860")])
)
