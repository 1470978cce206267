"""Resources as text, the same in terminals and notebooks. The functions do no I/O and don't read the clock.

Output is a sequence of lines, each a sequence of `llmos.present.text.Span`: a piece of text and its tone. A terminal
shows tones as colours, a notebook as HTML; colour never is the only sign.
"""
