"""The leaderboard: images drawn by methods (:mod:`draw`), scored from files (:mod:`score`), told (:mod:`report`).

Every method's outputs are 8 bit files in the layout of the NTIRE challenges on learning the super-resolution space,
``<set>/<method>/000000_sample00000.png``, before anything is measured: any other method's files are scored alike.
"""
