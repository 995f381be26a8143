"""The demo world: a small base of Loratory's own and the pictures it draws itself. Nothing is downloaded."""
