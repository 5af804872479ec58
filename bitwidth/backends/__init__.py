"""Backends: one folder per framework; nothing else imports a framework.

Here belongs what fulfils the protocols of `bitwidth.backend`. A backend lowers encodings and knows no passes; what can
be said in numpy belongs in the other rooms.
"""
