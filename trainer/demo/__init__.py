"""The demo world: a small base model of Loratory's own and the pictures drawn for it. Nothing is downloaded."""
