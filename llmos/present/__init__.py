"""Resources as text, the same in terminal and notebook. Pure functions: nothing here reads, writes or asks the time.

What is shown is a sequence of lines, each a sequence of `llmos.present.text.Span`: a piece of text and its tone.
A terminal makes colours of tones, a notebook HTML; colour is never the only sign.
"""
