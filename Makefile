# Two commands do everything on a fresh machine: `make book` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PAGE ?= 02-tversky
CHROMIUM ?= chromium --headless --no-sandbox --disable-gpu --disable-background-networking --no-pdf-header-footer \
  --virtual-time-budget=20000

.PHONY: book page pdf test site-test lowest serve lint assignments slides clean
.DELETE_ON_ERROR:

book: $(VENV)/book.installed  ## run every chapter and build _build/html
	$(BIN)/jupyter-book build . -W -n --keep-going
	$(BIN)/cxr-tutorial classroom scan _build/html

page: $(VENV)/book.installed  ## run and build one chapter alone: make page PAGE=02-tversky
	mkdir -p _build/page
	printf 'format: jb-book\nroot: book/%s\n' $(PAGE) > _build/page/_toc.yml
	$(BIN)/jupyter-book build . --toc _build/page/_toc.yml --path-output _build/page

test: $(VENV)/test.installed lint  ## lint, unit tests and doctests, then every chapter
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --ignore tests/site
	OMP_NUM_THREADS=1 $(BIN)/pytest --nbval-lax book -n 2 --dist loadfile

site-test: $(VENV)/test.installed book  ## every page in Chromium, without a network: light, dark, on a phone
	$(BIN)/pytest tests/site -n 2

lowest:  ## every chapter with the oldest versions that pyproject.toml allows; torch as in constraints.txt
	rm -rf _build/lowest && $(PYTHON) -m venv _build/lowest
	(grep ^torch== constraints.txt; sed -nE '/^(dependencies|book|sweep) = \[/,/^\]/s/^    "([a-z-]+)>=([0-9a-z.]+).*/\1==\2/p' \
	  pyproject.toml | grep -v ^torch==) > _build/lowest/constraints.txt
	_build/lowest/bin/python -m pip install --quiet -c _build/lowest/constraints.txt '.[book]' nbval pytest-xdist
	OMP_NUM_THREADS=1 _build/lowest/bin/pytest --nbval-lax book -n 2 --dist loadfile

lint: $(VENV)/test.installed  ## style, spelling, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy

pdf: book  ## the whole book on paper, _build/cxr-tutorial.pdf; wants Debian's chromium and poppler-utils
	rm -rf _build/pdf && mkdir -p _build/pdf
	for page in $$(sed -nE 's/^.*(root|file): //p' _toc.yml); do \
	  $(CHROMIUM) --print-to-pdf=_build/pdf/$$(ls _build/pdf | wc -l | xargs printf %02d).pdf \
	    "file://$(CURDIR)/_build/html/$$page.html" || exit 1; \
	done
	pdfunite _build/pdf/*.pdf _build/cxr-tutorial.pdf

assignments: $(VENV)/test.installed  ## student release, its zip and the teacher's course in _build/assignments
	$(BIN)/cxr-tutorial classroom build

slides: $(VENV)/test.installed  ## slides of every chapter in _build/slides, for a browser without a network
	$(BIN)/cxr-tutorial classroom slides $(wildcard book/[01]*.ipynb)

serve: book  ## read the book at http://localhost:8000
	$(BIN)/python -m http.server 8000 --directory _build/html

clean:  ## forget the built book and its cache; `rm -r .venv` forgets the installation
	rm -rf _build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cxr-tutorial needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/book.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[book]'
	touch $@

$(VENV)/test.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $(VENV)/book.installed $@
