"""Encoders in the formats of other libraries: pretrained ones in (`init=hf:FOLDER`), trained ones out (`export format=hf`)."""
