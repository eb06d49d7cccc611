"""The reference pages of the documents, made from the code: `python -m coremachine.reference` writes all of them."""
