"""Training and testing of any BasicSR model, for runs that are stopped, moved and resumed.

An option file becomes a run (:mod:`setup`), the run a training or a test (:mod:`pipelines`), which draws its data in an
order that any process finds again (:mod:`order`), saves what survives a kill (:mod:`state`), answers signals
(:mod:`stop`) and shares the work with other processes (:mod:`distributed`).
"""

# First, so that BasicSR finds these modules whole when it registers the model, which uses them.
import basicsr  # noqa: F401
