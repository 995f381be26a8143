"""Texts beside pictures, pure: `decoding` of bytes, `reading` as tags or a caption, `writing` of tags.

`docs/texts.md` has the rules in words.
"""

MAX_CAPTION_CHARACTERS = 20_000
"""Maximum length of a text beside a picture, after decoding."""
