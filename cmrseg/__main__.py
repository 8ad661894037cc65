from cmrseg.cli import main

main()
