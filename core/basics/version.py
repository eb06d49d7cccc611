"""The release, in its one place: the packages, the API's description and the tag have it from here."""

VERSION = "0.1.0"
